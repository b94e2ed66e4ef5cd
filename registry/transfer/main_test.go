package transfer_test

import (
	"os"
	"testing"

	"github.com/bobbuild/bob/registry/internal/registrytest"
)

func TestMain(m *testing.M) { os.Exit(registrytest.Main(m)) }
