"""How fast the stack is, beside what people run today: each module measures one part, and the settings of each contender are files here."""
