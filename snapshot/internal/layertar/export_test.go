package layertar

import "github.com/bobbuild/bob/snapshot/owners"

// Resolve returns the path of the directory that the clean name leads to below root.
func Resolve(root, name string) (string, error) {
	t, err := newTree(root, nil, owners.Disk, func(string, string) error { return nil })
	if err != nil {
		return "", err
	}
	defer t.close()
	d, err := t.resolve(name, false)
	if err != nil {
		return "", err
	}
	return d.Path, nil
}
