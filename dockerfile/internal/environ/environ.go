// Package environ holds variables in the order in which they were set.
package environ

import (
	"maps"
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Map is a set of variables in the order in which they were last set. That is
// the order BuildKit gives them to a command. The zero value is empty and may be used.
type Map struct {
	entries map[string]entry
	next    int
}

type entry struct {
	value string
	order int // when it was set
}

var _ shell.EnvGetter = (*Map)(nil)

// Get returns the value of a variable. It implements shell.EnvGetter.
func (m *Map) Get(key string) (string, bool) {
	v, ok := m.entries[key]
	return v.value, ok
}

// Keys returns the names in order. It implements shell.EnvGetter.
func (m *Map) Keys() []string {
	keys := slices.Collect(maps.Keys(m.entries))
	slices.SortFunc(keys, func(a, b string) int { return m.entries[a].order - m.entries[b].order })
	return keys
}

// Len returns how many variables there are.
func (m *Map) Len() int { return len(m.entries) }

// Set gives a variable a value and makes it the last.
func (m *Map) Set(key, value string) {
	if m.entries == nil {
		m.entries = map[string]entry{}
	}
	m.entries[key] = entry{value, m.next}
	m.next++
}

// Delete takes a variable out.
func (m *Map) Delete(key string) { delete(m.entries, key) }

// Clone returns a copy that shares nothing with m.
func (m *Map) Clone() *Map { return &Map{entries: maps.Clone(m.entries), next: m.next} }

// List returns KEY=value strings in order, without a variable that has no name.
func (m *Map) List() []string {
	out := make([]string, 0, len(m.entries))
	for _, k := range m.Keys() {
		if k != "" {
			out = append(out, k+"="+m.entries[k].value)
		}
	}
	return out
}
