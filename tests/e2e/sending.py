"""A process that sends what waits in a home's outbox, until it is killed. Usage: sending.py HOME"""

import sys
import time

from fairway.app.alerts import open_alerts
from fairway.monitoring import sender as sending

sending._LEASE_SLACK_SECONDS = 1.0  # the lease of a process that was killed is over sooner
with open_alerts(sys.argv[1]) as place:
    sender = place.sender()
    sender._poll_seconds = 0.02
    sender.start()
    print("sending", flush=True)
    time.sleep(600)
