package vault

import "time"

// ImpatientBatches lets no batch be answered in time.
func (v *Vault) ImpatientBatches() { v.batchFor = time.Nanosecond }
