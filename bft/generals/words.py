"""Hold the words of stories and pictures in English and Portuguese: names of generals, orders, faults.

Sentences are in `explain`. Both languages use the terms of the field: general, tenente, traidor, ataque,
retirada.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bft.generals.ids import GeneralId, Order, Path
from bft.generals.plan import Plan
from bft.generals.seam import Fault

Language: TypeAlias = Literal["en", "pt"]

_ORDERS_PT = {"attack": "ataque", "retreat": "retirada", "wait": "espera"}

_FAULTS_PT = {
    Fault.WRONG_SENDER: "quem envia não é o último general do caminho",
    Fault.WRONG_ROUND: "o comprimento do caminho ou da cadeia não corresponde à ronda",
    Fault.WRONG_PATH: "não é um caminho por que este general espere",
    Fault.WRONG_KIND: "não é uma mensagem deste algoritmo",
    Fault.REPEATED: "o mesmo já tinha sido dito",
    Fault.UNKNOWN_ORDER: "a ordem não é uma das combinadas",
    Fault.UNKNOWN_SIGNER: "quem assina não é um dos generais",
    Fault.NOT_THE_COMMANDER: "a primeira assinatura não é a do comandante",
    Fault.REPEATED_SIGNER: "um general assinou duas vezes",
    Fault.OWN_SIGNATURE: "a cadeia já passou por quem a recebe",
    Fault.BAD_SIGNATURE: "uma assinatura não corresponde à ordem e às assinaturas anteriores",
}


@dataclass(frozen=True, slots=True)
class Names:
    """Name generals and orders of one plan in one language."""

    plan: Plan
    language: Language

    def general(self, general: GeneralId) -> str:
        """Return "the commander" or "lieutenant 2"."""
        if general == self.plan.commander:
            return "the commander" if self.language == "en" else "o comandante"
        return f"lieutenant {general}" if self.language == "en" else f"o tenente {general}"

    def bare(self, general: GeneralId) -> str:
        """Return "commander" or "lieutenant 2", without article."""
        return self.general(general).removeprefix("the ").removeprefix("o ")

    def subject(self, general: GeneralId) -> str:
        """Return the general's name as a sentence begins with it."""
        name = self.general(general)
        return name[0].upper() + name[1:]

    def short(self, general: GeneralId) -> str:
        """Return "C" or "L2" ("T2" in Portuguese)."""
        if general == self.plan.commander:
            return "C"
        return f"{'L' if self.language == 'en' else 'T'}{general}"

    def together(self, generals: Sequence[GeneralId]) -> str:
        """Return "lieutenants 1, 2 and 3"."""
        if len(generals) == 1 or self.plan.commander in generals:
            return self._list([self.general(general) for general in generals])
        numbers = self._list([str(general) for general in generals])
        return f"lieutenants {numbers}" if self.language == "en" else f"os tenentes {numbers}"

    def addressed(self, generals: Sequence[GeneralId]) -> str:
        """Return the receivers: "to lieutenants 1 and 2", "aos tenentes 1 e 2"."""
        together = self.together(generals)
        if self.language == "en":
            return f"to {together}"
        return "a" + together if together.startswith(("o ", "os ")) else f"a {together}"

    def order(self, order: Order) -> str:
        """Return the order's name."""
        return order if self.language == "en" else _ORDERS_PT.get(order, order)

    def letter(self, order: Order) -> str:
        """Return the shortest prefix, in capitals, that tells the order from the others."""
        names = [self.order(other) for other in self.plan.orders]
        name = self.order(order)
        for length in range(1, len(name) + 1):
            if sum(other.startswith(name[:length]) for other in names) == 1:
                return name[:length].upper()
        return name.upper()

    def fault(self, fault: Fault) -> str:
        """Return why a message was refused."""
        return fault.value if self.language == "en" else _FAULTS_PT[fault]

    def quote(self, path: Path, order: Order) -> str:
        """Return what the last of a path says: "lieutenant 1 told me that the commander told him
        'attack'"."""
        said = f"“{self.order(order)}”"
        tellers = list(path[:-1])
        if not tellers:
            return said
        tellers.reverse()
        told, him, that = (
            ("told me", "told him", "that") if self.language == "en" else ("disse-me", "lhe disse", "que")
        )
        parts = [f"{self.general(tellers[0])} {told}"]
        parts.extend(f"{that} {self.general(teller)} {him}" for teller in tellers[1:])
        return " ".join([*parts, said])

    def _list(self, words: Sequence[str]) -> str:
        conjunction = " and " if self.language == "en" else " e "
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + conjunction + words[-1]


def dotted(path: Path) -> str:
    """Return a path as `0.2.1`."""
    return ".".join(str(general) for general in path)
