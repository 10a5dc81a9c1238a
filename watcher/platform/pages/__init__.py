"""Pages for people: datasets, tags as galleries, embeddings as scatter plots, jobs. Read-only, rendered here."""
