"""Prompts and completions as text, whatever form TRL has them in."""

from typing import Any

Messages = list[dict[str, Any]]


def prompt_text(prompt: str | Messages) -> str:
    """A prompt as people read it: its text, or that of its messages, with their roles where there are several."""
    if isinstance(prompt, str):
        return prompt
    contents = [_content_text(message.get("content")) for message in prompt]
    if len(prompt) == 1:
        return contents[0]
    return "\n\n".join(f"{message['role']}: {content}" for message, content in zip(prompt, contents, strict=True))


def _content_text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in content)


def completion_text(completion: Any, think_end: str | None = "</think>") -> str:
    """
    What the policy wrote, of a logged completion: a text, or messages, of which those of the assistant are joined.

    A thought that a chat template's parser has put into a field of its own is put back before the rest.
    """
    if completion is None:
        return ""
    if isinstance(completion, str):
        return completion
    parts = []
    for message in completion:
        if message is None or message.get("role") != "assistant":
            continue
        content = message.get("content")
        thought = message.get("reasoning_content") or message.get("thinking")
        if thought:
            parts.append(f"{thought}{think_end or ''}")
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):  # of parts, of which the text counts
            parts.append("".join(part.get("text") or "" for part in content if isinstance(part, dict)))
    return "".join(parts)
