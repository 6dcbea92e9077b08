"""What a reader of annotations says of an entry that it cannot use."""


class Broken(Exception):
    """`kind`: of `mrbench.data.findings.KINDS`; `reason`: what is wrong, with the values."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
