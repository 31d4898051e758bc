"""Data and templates. Standard library only."""

from __future__ import annotations

from tunewright.config.refused.declaration import inert, refused

REFUSED = (
    refused("remove_unused_columns", "Drops dataset columns the model's forward does not accept.",
            because="rows are read by column: one that is not named is never in a batch", mend="write true or false, or leave it out",
            llamafactory=(inert("remove_unused_columns", True, False), inert("no_remove_unused_columns", False)),
            sft_json=inert("remove_unused_columns", False, True)),
    refused("label_names", "Names the input keys treated as labels.",
            because="labels are made from the answers; the models take no others", mend="leave it out",
            llamafactory=inert("label_names", None, "labels", ["labels"])),
    refused("length_column_name", "Dataset column holding precomputed sequence lengths.",
            because="lengths are counted from the tokens, which costs nothing and cannot be wrong", mend="leave it out",
            llamafactory=inert("length_column_name", "length")),
    refused("data_shared_file_system", "Declares that datasets lie on a file system shared by the nodes.",
            because="every process reads the files it is given, shared or not", mend="write true or false, or leave it out",
            llamafactory=inert("data_shared_file_system", False, True, today=True),
            mindspeed_fsdp2=inert("data_shared_file_system", False, True)),
    refused("create_attention_mask_in_dataloader", "Builds the attention mask inside the data loader.",
            because="the data loader always builds what attention needs: a mask for padded batches, positions for packed ones",
            mend="write true or false, or leave it out", mindspeed_fsdp2=inert("create_attention_mask_in_dataloader", False, True, None)),
    refused("no_shared_storage", "Declares that nodes do not share storage, so each builds its own data index.",
            because="there is no data index: every process reads the files it is given", mend="write true or false, or leave it out",
            mindspeed_fsdp2=inert("no_shared_storage", False, True, None)),
    refused("dataloader_type", "Data-loader order; single reads sequentially.",
            because="one pass over the order of rows per epoch is the only way in which batches are read",
            mindspeed_fsdp2=inert("dataloader_type", "single")),
)
