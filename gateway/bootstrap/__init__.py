"""From settings to wired services: the only room that names a backend. A module for each thing that is opened."""
