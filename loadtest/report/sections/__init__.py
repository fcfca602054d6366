"""The parts of a report: one function a section, each a pure function of the `Report`."""
