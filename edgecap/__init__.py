"""edgecap: capture of video, motion and force on one clock, delivered with proof."""

__version__ = "0.1.0"
