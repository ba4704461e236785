"""Stands where vLLM stands, for tests that need no real engine; those that do are in tests/vllm."""

import importlib.machinery
from types import ModuleType, SimpleNamespace


def vllm_modules(engine: type) -> dict[str, ModuleType]:
    """For `sys.modules`: all that this package imports of vLLM, with `engine` as its `LLM`."""
    module, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = engine, lambda **settings: SimpleNamespace(**settings)
    platforms.current_platform = SimpleNamespace(is_cpu=lambda: False)
    return {"vllm": module, "vllm.platforms": platforms}


def engine_core(settings: dict) -> SimpleNamespace:
    """For an engine's `llm_engine`: says how many tokens the engine takes."""
    return SimpleNamespace(model_config=SimpleNamespace(max_model_len=settings.get("max_model_len", 40_000)))
