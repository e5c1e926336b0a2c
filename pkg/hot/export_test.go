package hot

// Waiting is how many commands wait for a trip.
func (s *Store) Waiting() int {
	s.trips.mu.Lock()
	defer s.trips.mu.Unlock()
	return len(s.trips.waiting)
}
