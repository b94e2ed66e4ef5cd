package auth_test

import (
	"encoding/json"
	"testing"

	"github.com/bobbuild/bob/registry/internal/auth"
)

func TestParseChallenges(t *testing.T) {
	t.Parallel()
	got := auth.ParseChallenges(`Negotiate, Basic realm="a, \"b\"", Bearer Realm=https://x/y,service="s" , scope="repository:a:pull,push"`)
	want := `[{"Scheme":"Negotiate","Parameters":{},"Insecure":false},` +
		`{"Scheme":"Basic","Parameters":{"realm":"a, \"b\""},"Insecure":false},` +
		`{"Scheme":"Bearer","Parameters":{"realm":"https://x/y","scope":"repository:a:pull,push","service":"s"},"Insecure":false}]`
	encoded, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(encoded) != want {
		t.Errorf("got  %s\nwant %s", encoded, want)
	}
}

func FuzzParseChallenges(f *testing.F) {
	for _, seed := range []string{"", "Basic", `Bearer realm="x",service=y`, `a="`, `Basic realm="\`, `Bearer service=,scope=x`, ",,=,", "\x00 \"", "=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, header string) {
		auth.ParseChallenges(header) // ends, and doesn't panic
	})
}
