"""Files to batches: sources, formats, templates, masks, tokens, packing, order of samples, collation."""
