package registry_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/logins"
)

// TestCredentialIsTold checks that where a credential comes from is told once for
// each host, and that nobody is told what it is.
func TestCredentialIsTold(t *testing.T) {
	t.Parallel()
	guarded, open := registrytest.Serve(t, basicOnly(newInner(t))), registrytest.ServeEmbedded(t)
	a, err := logins.Parse([]byte(`{"`+guarded+`/team":{"username":"`+user+`","password":"`+password+`"}}`), "THE_VARIABLE")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var told []string
	c := registrytest.NewClient(t, func(o *registry.Options) {
		o.Keychain, o.PushKeychain = registrytest.Anonymous{}, a
		o.Credential = func(host, origin string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, host+" "+origin)
		}
	})
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	f.Push(t.Context(), t, c, guarded+"/team/app:1")
	f.Push(t.Context(), t, c, guarded+"/team/app:2")
	f.Push(t.Context(), t, c, open+"/app:1")
	f.Check(t.Context(), t, c, open+"/app:1")
	if _, err := c.Resolve(t.Context(), guarded+"/team/app:1", registrytest.AMD64); err == nil {
		t.Error("the credentials of pushes were used for a pull")
	}
	want := guarded + " THE_VARIABLE\n" + open + " \n" + guarded + " "
	if got := strings.Join(told, "\n"); got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
