"""Hardware edges: serial microcontrollers, cameras, buttons."""
