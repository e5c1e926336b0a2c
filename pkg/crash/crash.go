//go:build !faults

// Package crash names the points at which a fault test kills the process. In a normal build a point is nothing.
package crash

// Point is where a process built with the tag faults dies when COUNTERSIGN_CRASH names it.
func Point(string) {}
