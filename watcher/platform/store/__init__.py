"""The platform's tables and the functions on them: `Session` first, the rest keyword-only; they never commit."""
