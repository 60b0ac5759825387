"""The refusal to start, one readable line a fault."""


class ConfigurationError(Exception):
    """Settings are missing, unsafe or impossible; each line says which and what to do."""

    def __init__(self, refusals: list[str]) -> None:
        super().__init__("\n".join(f"rollcall: {refusal}" for refusal in refusals))
        self.refusals = refusals
