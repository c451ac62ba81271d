"""What Python imports as it starts: programs that tests start reach no other machine either."""

import offline

offline.block()
