import time
from ion_actors import Pool
pool = Pool(2); pool.drain_on_signal(timeout=2); print("ready", flush=True)
while True: time.sleep(.1)
