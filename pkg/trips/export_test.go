package trips

// Waiting is how many commands wait for a trip.
func (t *Trips) Waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}

// AtOnce is how many trips are under way at most.
const AtOnce = atOnce
