"""One start→stop recording: state machine, manifest, recorder."""
