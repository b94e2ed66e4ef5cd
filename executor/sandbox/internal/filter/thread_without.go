//go:build !cgo

package filter

import "errors"

// StartThread needs cgo.
func StartThread(int) error {
	return errors.New("this binary was built without cgo: build with CGO_ENABLED=1 and -tags seccomp")
}
