package idmap_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/idmap"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

func TestHas(t *testing.T) {
	t.Parallel()
	if !idmap.HasUser(os.Getuid()) || !idmap.HasGroup(os.Getgid()) {
		t.Error("this process's own IDs don't exist")
	}
	if idmap.HasUser(-1) || idmap.HasGroup(-1) {
		t.Error("ID -1 exists")
	}
	one, err := idmap.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if two, err := idmap.Fingerprint(); one != two || len(one) != 16 || err != nil {
		t.Errorf("got %q and %q, %v", one, two, err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	const none = 1<<32 - 1 // no namespace has it
	for _, c := range []struct {
		uid, gid int
		keeper   owners.Keeper
		want     string
	}{
		{none, 0, owners.Devices, "user ID 4294967295 is outside the IDs available here"},
		{os.Getuid(), none, owners.Devices, "/etc/subgid"},
		{os.Getuid(), os.Getgid(), owners.Devices, "chown to"},
		{owners.Unchanged, owners.Unchanged, owners.Devices, "fchmod"},
		{1, 2, owners.Records, "record owner 1:2"},
	} {
		err := idmap.Explain(unix.EINVAL, c.uid, c.gid, c.keeper)
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), unix.EINVAL.Error()) {
			t.Errorf("%d:%d: %v, want %q", c.uid, c.gid, err, c.want)
		}
	}
}
