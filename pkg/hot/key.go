package hot

import "strings"

// escape keeps what has a meaning in a key from being part of a name: different names never make the same key.
var escape = strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D", ":", "%3A")

var unescape = strings.NewReplacer("%25", "%", "%7B", "{", "%7D", "}", "%3A", ":")

// Key builds "{tag}:part:part". All keys with the same tag lie in one slot of a Redis Cluster, so that one script or
// transaction may touch them together: give everything that belongs to one aggregate its id as the tag.
func Key(tag string, parts ...string) string {
	var b strings.Builder
	b.WriteByte('{')
	if tag == "" {
		tag = "%" // an empty tag would be none; no escaped name is a bare percent sign
		b.WriteString(tag)
	} else {
		b.WriteString(escape.Replace(tag))
	}
	b.WriteByte('}')
	for _, p := range parts {
		b.WriteByte(':')
		b.WriteString(escape.Replace(p))
	}
	return b.String()
}

// ParseKey takes a key of Key apart; ok is false for what Key does not build.
func ParseKey(key string) (tag string, parts []string, ok bool) {
	head, rest, found := strings.Cut(key, "}")
	tag, opened := strings.CutPrefix(head, "{")
	if !found || !opened {
		return "", nil, false
	}
	if tag == "%" {
		tag = ""
	} else {
		tag = unescape.Replace(tag)
	}
	if rest != "" {
		fields := strings.Split(rest, ":")
		for _, p := range fields[1:] {
			parts = append(parts, unescape.Replace(p))
		}
	}
	return tag, parts, Key(tag, parts...) == key
}
