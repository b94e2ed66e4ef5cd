package integration_test

import (
	"go/ast"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
	"golang.org/x/tools/go/packages"
)

// TestFilesLeadOneWay: inside a package the files use each other in one direction. A reader
// can begin with a file that uses none of its neighbours and go on from there.
func TestFilesLeadOneWay(t *testing.T) {
	t.Parallel()
	check(t, harness.Need("go"))
	root, err := harness.Module(t.Context())
	check(t, err)
	all, err := packages.Load(&packages.Config{
		Context: t.Context(), Dir: root,
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedExportFile,
	}, "./...")
	check(t, err)
	for _, p := range all {
		for _, e := range p.Errors {
			t.Error(e)
		}
		name := strings.TrimPrefix(p.PkgPath, module+"/")
		knotted := inCircles(fileUses(p))
		if len(knotted) > 0 {
			t.Errorf("package %s: files use each other in circles: %q", name, knotted)
		}
	}
}

// fileUses returns which other files of p each file uses: those that declare what it
// names.
func fileUses(p *packages.Package) map[string]map[string]bool {
	uses := make(map[string]map[string]bool)
	for _, f := range p.Syntax {
		from := filepath.Base(p.Fset.Position(f.Pos()).Filename)
		uses[from] = make(map[string]bool)
		ast.Inspect(f, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if !ok {
				return true
			}
			if o := p.TypesInfo.Uses[id]; o != nil && o.Pkg() == p.Types && shared(o) {
				if to := filepath.Base(p.Fset.Position(o.Pos()).Filename); to != from {
					uses[from][to] = true
				}
			}
			return true
		})
	}
	return uses
}

// shared reports whether files other than its own can name o: what a package declares,
// methods and fields.
func shared(o types.Object) bool {
	if v, ok := o.(*types.Var); ok && v.IsField() {
		return true
	}
	if f, ok := o.(*types.Func); ok && f.Signature().Recv() != nil {
		return true
	}
	return o.Parent() == o.Pkg().Scope()
}

// inCircles returns the nodes from which edges lead back to themselves, sorted.
func inCircles(edges map[string]map[string]bool) []string {
	var found []string
	for start := range edges {
		seen := make(map[string]bool)
		for next := slices.Collect(maps.Keys(edges[start])); len(next) > 0; {
			node := next[len(next)-1]
			next = next[:len(next)-1]
			if !seen[node] {
				seen[node] = true
				next = slices.AppendSeq(next, maps.Keys(edges[node]))
			}
		}
		if seen[start] {
			found = append(found, start)
		}
	}
	slices.Sort(found)
	return found
}
