// Package bench measures how close Countersign comes to what it stands on. Its one benchmark takes everything in the same run, in
// interleaved rounds, and prints the medians as ratios: machines differ and have busy moments, the ratios hardly change.
package bench
