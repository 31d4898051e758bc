"""The parameters of the vocabularies that are not honoured: one declaration each, with the reason."""
