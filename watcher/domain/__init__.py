"""Pure rules: no network, no database, no clock of their own."""
