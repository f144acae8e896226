"""Solve the Byzantine generals problem of Lamport, Shostak and Pease: executable, exhaustive, visible.

Start at `README.md` beside this file for the map, at `plan` and `seam` for the vocabulary, at `oral` and
`signed` for the two algorithms, at `run.fight` to fight a battle. All is pure: no clock, no sockets, and no
dice but those handed in.
"""
