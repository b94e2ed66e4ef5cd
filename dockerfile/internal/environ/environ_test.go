package environ_test

import (
	"slices"
	"testing"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
)

func TestMap(t *testing.T) {
	t.Parallel()
	var m environ.Map
	m.Set("A", "1")
	m.Set("B", "2")
	m.Set("", "nameless")
	m.Set("C", "3")
	m.Set("A", "4") // is the last now
	c := m.Clone()
	c.Delete("B")
	c.Set("D", "5")
	for _, test := range []struct {
		m    *environ.Map
		want []string
	}{{&m, []string{"B=2", "C=3", "A=4"}}, {c, []string{"C=3", "A=4", "D=5"}}, {new(environ.Map).Clone(), nil}} {
		if got := test.m.List(); !slices.Equal(got, test.want) {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	if got, want := m.Keys(), []string{"B", "", "C", "A"}; !slices.Equal(got, want) || m.Len() != len(want) {
		t.Errorf("got %d %q, want %q", m.Len(), got, want)
	}
	if v, ok := m.Get("A"); v != "4" || !ok {
		t.Errorf("got %q and %v", v, ok)
	}
	if v, ok := c.Get("B"); ok {
		t.Errorf("got %q for what is deleted", v)
	}
}
