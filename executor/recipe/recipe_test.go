package recipe_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/opencontainers/go-digest"
)

// listed is a recipe with these inputs.
func listed(kind string, inputs ...[]string) digest.Digest {
	r := recipe.New(kind)
	for _, values := range inputs {
		r.Add("input", values...)
	}
	return r.Key()
}

func TestKeysAreFramed(t *testing.T) {
	t.Parallel()
	named, source, hidden := recipe.New("r"), recipe.New("r"), recipe.New("r")
	named.Add("name", "value")
	source.Source("name", digest.FromString("value"))
	hidden.Hidden("value")
	keys := map[string]digest.Digest{
		"kind a":        recipe.Key("a"),
		"kind b":        recipe.Key("b"),
		"empty value":   recipe.Key("a", ""),
		"ab c":          recipe.Key("a", "ab", "c"),
		"a bc":          recipe.Key("a", "a", "bc"),
		"abc":           recipe.Key("a", "abc"),
		"kind with NUL": recipe.Key("a\x00b"),
		"lists ab|c":    listed("r", []string{"a", "b"}, []string{"c"}),
		"lists a|bc":    listed("r", []string{"a"}, []string{"b", "c"}),
		"lists abc|":    listed("r", []string{"a", "b", "c"}, nil),
		"lists |abc":    listed("r", nil, []string{"a", "b", "c"}),
		"no input":      listed("r"),
		"other kind":    listed("s"),
		"named":         named.Key(),
		"source":        source.Key(),
		"hidden":        hidden.Key(),
	}
	seen := make(map[digest.Digest]string)
	for name, key := range keys {
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the same key", name, other)
		}
		seen[key] = name
	}
}

// framed is the key of values as the package has it.
func framed(values ...string) digest.Digest {
	var all []byte
	for _, v := range values {
		all = append(binary.BigEndian.AppendUint64(all, uint64(len(v))), v...)
	}
	return digest.FromBytes(all)
}

// What is known under a key that was made in another way, or from files that were
// hashed in another way, is never found.
func TestKeysHaveVersions(t *testing.T) {
	t.Parallel()
	want := framed("bob.key.v4 "+filecopy.DigestVersion, "kind", "value")
	if got := recipe.Key("kind", "value"); got != want {
		t.Errorf("the key is %s, want %s", got, want)
	}
	if got, want := recipe.Lasting("v", "kind", "value"), framed("v", "kind", "value"); got != want {
		t.Errorf("the lasting key is %s, want %s", got, want)
	}
}

// A source counts by its content, wherever it comes from, and what is hidden is in no
// explanation.
func TestInputs(t *testing.T) {
	t.Parallel()
	content := digest.FromString("content")
	list := func(source, hidden string) *recipe.Recipe {
		r := recipe.New("test")
		r.Hidden(hidden)
		r.Add("USER", "me")
		r.Source(source, content)
		return r
	}
	one := list("a", "h")
	if other := list("b", "h"); one.Key() != other.Key() {
		t.Error("the key depends on the name of a source")
	}
	other := list("a", "i")
	if one.Key() == other.Key() {
		t.Error("the key doesn't depend on what is hidden")
	}
	if !slices.Equal(one.Inputs(), other.Inputs()) {
		t.Error("the explanation depends on what is hidden")
	}
	one.Unread("c")
	want := []string{"USER", "content of a", "content of c"}
	var got []string
	for _, in := range one.Inputs() {
		got = append(got, in.Name)
		if (in.Value == "") != (in.Name == "content of c") || in.Value == "me" {
			t.Errorf("%+v", in)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the inputs are %q, want %q", got, want)
	}
}
