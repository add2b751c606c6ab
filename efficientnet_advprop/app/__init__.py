"""The application: settings, modes and the command line."""
