package registry_test

import (
	"errors"
	"io"
	"os"
	"testing"

	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/google/go-containerregistry/pkg/authn"
)

func TestMain(m *testing.M) { os.Exit(registrytest.Main(m)) }

func mustNotOpen(t *testing.T) func() (io.ReadCloser, error) {
	t.Helper()
	return func() (io.ReadCloser, error) {
		t.Error("blob opened although the registry has it")
		return nil, errors.New("not to be opened")
	}
}

// login is a keychain with one user for all.
type login struct{ user, password string }

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: l.user, Password: l.password}, nil
}
