"""nlnet: training of video action recognition with non-local networks."""

__version__ = "0.1.0"
