"""Quality of a model's answers: distributions of the next token, compared with those of a reference."""
