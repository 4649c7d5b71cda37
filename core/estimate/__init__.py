"""What a run will take: memory by part and time, before it starts. No torch, nothing is loaded.

`sizes` reads a model's sizes and says what stands in the largest batch, `memory` adds up the parts,
`pace` tells how long a step takes, `changes` finds what would make a run fit, and `plan` puts all
of it together for a page or a shell.
"""
