"""The commands: name, the function that runs it, and what it does in one line. Standard library only."""

from __future__ import annotations

from typing import Final

from tunewright.registry import Entry, Registry

COMMANDS: Final = Registry("command", (
    Entry("train", "tunewright.commands.train:run", "Fine-tune a model as a configuration says."),
    Entry("eval", "tunewright.commands.eval:run", "Evaluate a model's loss on held-out rows."),
    Entry("predict", "tunewright.commands.predict:run", "Generate answers for held-out rows, and score them."),
    Entry("chat", "tunewright.commands.chat:run", "Talk to a model in the terminal."),
    Entry("export", "tunewright.commands.export:run", "Merge adapters and write a model that stands alone."),
    Entry("check", "tunewright.commands.check:run", "Find everything wrong with a configuration before a model is opened."),
    Entry("plan", "tunewright.commands.plan:run", "Estimate the memory and the time that a run will need."),
    Entry("explain", "tunewright.commands.explain:run", "Explain a parameter, or where a run's values come from."),
    Entry("convert", "tunewright.commands.convert:run", "Rewrite a configuration in another vocabulary."),
    Entry("coverage", "tunewright.commands.coverage:run", "Show which names of which vocabulary are honoured."),
    Entry("preview", "tunewright.commands.preview:run", "Show the tokens of rows, trained and not trained."),
    Entry("prepare", "tunewright.commands.prepare:run", "Tokenise the data sets of a configuration for later runs."),
    Entry("data", "tunewright.commands.data:run", "Check data sets, and rewrite them in other forms."),
    Entry("template", "tunewright.commands.template:run", "List and show chat templates, and check that one says the same everywhere."),
    Entry("verify-resume", "tunewright.selftest.verify_resume:run", "Prove that a run of your own goes on bit for bit after any step."),
    Entry("selftest", "tunewright.selftest.command:run", "Show on this machine what is promised about faults and exactness."),
    Entry("demo", "tunewright.commands.demo:run", "Fine-tune a small model on this machine, from start to finish."),
    Entry("env", "tunewright.commands.env:run", "Show versions, devices and memory."),
    Entry("version", "tunewright.commands.version:run", "Show the version."),
    Entry("completion", "tunewright.commands.completion:run", "Print a completion script for a shell."),
    Entry("schema", "tunewright.commands.schema:run", "Print the JSON Schema of configuration files for editors."),
))
