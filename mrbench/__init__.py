"""mrbench: reproducible benchmarks and ablations of Mask R-CNN."""

__version__ = "0.1.0"
