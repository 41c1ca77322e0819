"""Programs to read and to start from; not part of the wheel."""
