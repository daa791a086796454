"""The one registry of stage functions."""

STAGES: dict[str, str] = {
    "synthesize": "frontload.data_tools.stages:synthesize",
    "import_own": "frontload.data_tools.stages:import_own",
    "import_raw": "frontload.data_tools.raw_stages:import_raw",
    "import_tokenizer": "frontload.data_tools.raw_stages:import_tokenizer",
    "tokenizer": "frontload.data_tools.stages:train_tokenizer",
    "curate": "frontload.data_tools.stages:curate",
    "curate_sets": "frontload.data_tools.raw_stages:curate_sets",
    "index": "frontload.data_tools.stages:index",
    "blend": "frontload.data_tools.stages:blend",
    "pack": "frontload.data_tools.stages:pack",
    "rl_prompts": "frontload.data_tools.stages:write_rl_prompts",
    "crossthink": "frontload.data_tools.raw_stages:write_crossthink",
    "pretrain": "frontload.megatron_ext.stages:pretrain",
    "sft": "frontload.megatron_ext.stages:sft",
    "convert": "frontload.megatron_ext.stages:export",
    "grpo": "frontload.rl.stages:grpo",
    "evaluate": "frontload.eval.stages:evaluate",
    "decide": "frontload.eval.allocation.stages:decide",
    "register": "frontload.eval.allocation.stages:register",
    "conclude": "frontload.eval.allocation.stages:conclude",
    "readings": "frontload.eval.allocation.stages:readings",
    "import_benchmarks": "frontload.eval.benchmark_stages:import_benchmarks",
    "benchmarks": "frontload.eval.benchmark_stages:ask_benchmarks",
    "tabulate": "frontload.eval.stages:tabulate",
}
"""Stage kind -> "module:function", imported by the process that makes the stage."""
