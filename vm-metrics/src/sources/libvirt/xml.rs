//! Helpers for XML documents.

use roxmltree::Node;

pub fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// The devices of this name.
pub fn devices<'a, 'input: 'a>(
    domain: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    let devices = child(domain, "devices").into_iter().flat_map(|devices| devices.children());
    devices.filter(move |child| child.has_tag_name(name))
}
