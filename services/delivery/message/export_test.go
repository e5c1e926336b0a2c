package message

// Contrast lets tests measure what readers see; a and b are #rrggbb.
func Contrast(a, b string) float64 { return contrast(parseColour(a), parseColour(b)) }
