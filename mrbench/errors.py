"""The error that a person can mend: shown as one message, exit code 2, no traceback."""


class UserError(Exception):
    """Something the user asked for cannot be done.

    `what` says what is wrong and where; `hint` says what to do about it. The command line prints both and
    exits with code 2. A traceback is for bugs only.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}\n{hint}" if hint else what)
        self.what = what
        self.hint = hint
