-- A retention that is too short is told, and is no failure: what expires is migrated.
local hs = { status = "Progressing", message = "Waiting for the Longshore operator" }

if obj.status == nil or obj.status.conditions == nil then
  return hs
end
local seen = obj.status.observedGeneration
if seen == nil or (obj.metadata.generation ~= nil and seen < obj.metadata.generation) then
  hs.message = "Waiting for the Longshore operator to see the change"
  return hs
end

local warning = nil
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    hs.message = condition.message
    if condition.status == "True" then
      hs.status = condition.reason == "Suspended" and "Suspended" or "Healthy"
    else
      hs.status = "Degraded"
    end
  elseif condition.type == "RetentionCoversGaps" and condition.status == "False" then
    warning = condition.message
  end
end
if hs.status == "Healthy" and warning ~= nil then
  hs.message = warning
end
return hs
