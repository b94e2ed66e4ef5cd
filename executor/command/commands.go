package command

import (
	"context"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// A Runner runs the process of one RUN step and returns a
// [*sandbox.ExitError] when the process ended with anything but success.
type Runner interface {
	Run(ctx context.Context, p *sandbox.Process) error
}

// Options configure the commands of a build.
type Options struct {
	Runner   Runner
	Store    *snapshot.Store
	Progress *event.Reporter
	// Imported returns the cache mount key of an imported cache, nil if no cache has
	// it.
	Imported func(ctx context.Context, key digest.Digest) *Imported

	Network    sandbox.Network // of a RUN without --network of its own
	ExtraHosts []string        // lines for /etc/hosts, as "name:address"
	ShmSize    int64           // of /dev/shm in bytes; 0 means 64 MiB
	Ulimits    []sandbox.Ulimit
	Secrets    map[string]Secret    // by ID
	SSH        map[string]*SSHAgent // by ID
	CABundle   []byte               // certificate authorities in PEM form, or empty
}

// Commands run the commands of a build. They may be used by several goroutines.
type Commands struct{ Options }

// New returns the commands of a build with o.
func New(o Options) *Commands { return &Commands{o} }
