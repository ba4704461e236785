"""The study on a real language model: SmolLM2-135M-Instruct and word problems."""
