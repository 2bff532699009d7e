// Texts of a page that stand out too little: [element, contrast, text] of those below 4.5 : 1 (WCAG 2.1, 1.4.3).
(selector) => {
  const part = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * (front[3] ?? 1) + back[i] * (1 - (front[3] ?? 1)));
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      layers.push(color);
      if ((color[3] ?? 1) === 1) break;
    }
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const weak = [];
  for (const element of document.querySelectorAll(selector)) {
    if (!element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const style = getComputedStyle(element), back = ground(element);
    const front = over(numbers(element instanceof SVGElement ? style.fill : style.color), back);
    const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) weak.push([`${element.tagName} ${element.className}`, contrast.toFixed(2), element.textContent.trim().slice(0, 40)]);
  }
  return weak;
}
