package server

import (
	"log/slog"
	"os"
	"runtime/debug"

	// automemlimit finds out how much memory a container or machine gives, under every version of control groups.
	"github.com/KimMachineGun/automemlimit/memlimit"
)

// collectAt is how far the heap may grow over what lives, in percent, before it is collected. What lives in a service is some tens
// of megabytes, so four times as much is cheap, and a fifth of the time of a short call is saved.
const collectAt = 400

// memoryShare is the part of the memory given to the process near which the heap is collected all the same.
const memoryShare = 0.8

// Memory sets when the process collects its heap: seldom, and never beyond its share of what the container or the machine has.
// The variables GOGC and GOMEMLIMIT come first where they are set. Where no limit can be found out, that is logged.
func Memory(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	_, err := memlimit.SetGoMemLimitWithOpts(memlimit.WithRatio(memoryShare),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)))
	if err != nil {
		log.Warn("how much memory there is was not found out: the heap is not bounded", "error", err)
	}
}
